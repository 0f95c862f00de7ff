"""What is timed, a file each; each runs in an environment of its own."""
