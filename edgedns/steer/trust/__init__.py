"""Who is believed: vantages that measure, and users whose browsers do."""
