"""The web page (query by clip, query by sound, browse clusters)."""
