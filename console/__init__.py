"""What people see: the JSON API and the web pages."""
