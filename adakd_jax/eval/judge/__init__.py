"""A language model as a judge of two others' answers: pairs → questions → replies → outcomes."""
