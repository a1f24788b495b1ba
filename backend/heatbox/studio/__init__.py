"""The client of Label Studio: the one door to its API. What is sent is made in `heatbox.labelling`."""
