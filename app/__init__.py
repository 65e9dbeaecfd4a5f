"""The HTTP service: uploads in, findings out."""
