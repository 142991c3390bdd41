"""Data sets in local files, one module per format. Nothing is downloaded, and nothing is unpickled."""
