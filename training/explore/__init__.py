"""Look at a data folder before training on it: files, persons, classes, pictures, and what would
fool a model.
"""
