"""Readers of `.beton` files: FFCV, simplejpeg and nvImageCodec."""
