"""Tables of measured records: in the console, in results/<device>/README.md, and in marked blocks of the README."""
