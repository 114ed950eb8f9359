"""ArtCafe's tables: the catalog, the engine port with its engines, and the typed stores on top."""
