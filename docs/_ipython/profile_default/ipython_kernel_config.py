"""How pages run: of what a cell raises they show the last line, and no paths of this machine."""

c = get_config()
c.InteractiveShell.xmode = "Minimal"
c.HistoryManager.enabled = False
