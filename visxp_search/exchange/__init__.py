"""Whole indexes leave and enter the tool: Parquet, and the directories of the VisXP workers of DANE."""
