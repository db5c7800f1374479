"""Indexing: which seconds need work, and the way from video files to stored embeddings."""
