"""Write-ahead logs behind the port `core.log.Log`."""
