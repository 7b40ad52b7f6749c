"""The demo: small exporters that send one story as real datagrams and bytes on loopback, and the story itself."""
