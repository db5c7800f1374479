"""Results leave the tool: what a search found as timelines, tables, web documents, clips and reels.

`results` reads the document of a search, `cuts` looks at the files it names, `timeline`, `tables`, `web` and `cut`
write one family of formats each, and `run` chooses among them.
"""
