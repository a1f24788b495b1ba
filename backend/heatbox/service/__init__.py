"""The web service: Label Studio's ML backend protocol over HTTP. It never imports torch."""
