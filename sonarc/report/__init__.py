"""What a pipeline run leaves for people: `summary.json`, the terminal's table, `report.html`."""
