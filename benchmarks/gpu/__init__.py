"""What is measured on a GPU when one is at hand."""
