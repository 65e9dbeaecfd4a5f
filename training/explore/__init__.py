"""Report on a data folder before training: files, persons, classes, pictures, and shortcuts that
would fool a model.
"""
