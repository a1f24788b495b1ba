"""Box fitters: a heatmap (H, W) in [0, 1] becomes a mask and boxes with scores."""
