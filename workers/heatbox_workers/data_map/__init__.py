"""A map of a project's or a data set's pictures: points, where they lie, and the page that shows them."""
