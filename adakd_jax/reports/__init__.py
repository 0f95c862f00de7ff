"""The page that shows runs: read what they left, arrange it, draw it, write one HTML file."""
