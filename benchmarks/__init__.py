"""Speed and memory, peers and ours side by side."""
