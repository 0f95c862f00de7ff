"""A teacher on disk: its likeliest next tokens in every response, written once, read often."""
