"""The MCP server of an agent: `artcafe mcp` serves `artcafe.tools` to a client of the Model Context Protocol.

Needs the library `mcp` (`artcafe[mcp]`); nothing else imports this package.
"""
