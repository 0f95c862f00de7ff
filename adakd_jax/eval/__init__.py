"""Generation, overlap with references, and likelihood under teacher and student."""
