"""Studies: methods × seeds over one base run, in the order the data flows.

plan → shared → quality | overhead → results → comparison → report, figures
"""
