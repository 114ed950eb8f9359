"""The seed's tables: the catalog, the port of six verbs, the engines behind it, and the typed store in front."""
