"""HTML pages and plots that need no other file."""
