"""The tools for language models, without what carries them out: signatures, texts, results and schemas.

`artcafe.tools` carries them out with an agent's connection, `rest.mcp_tools` in a server.
"""
