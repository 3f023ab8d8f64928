"""PTX to native code of the host: a warp is one flow of explicit vector code."""
