"""The built-in plugins of heatbox: explainers and box fitters, one paper or rule a file.

They know tensors, heatmaps and the contract in `heatbox.contract`; nothing of Label Studio, queues or files.
"""
