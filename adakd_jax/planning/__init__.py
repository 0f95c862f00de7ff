"""What a run needs and how fast it would be on devices that are not there."""
