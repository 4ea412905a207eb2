"""emjax."""
