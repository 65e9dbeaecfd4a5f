"""From a folder of radiographs to a bundle, by `python -m training`."""
