"""The demo: a data set that it composes itself, and the way from image labels to boxes that it shows.

Order of reading: `drawing` and `words` (strokes and print), `cards` and `papers` (what is looked for), `clutter`
(what is not), `camera` (light, blur, noise), `compose` (all of them in a scene, with the boxes).
"""
