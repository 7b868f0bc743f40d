"""Neural Ordinary Differential Equations (2018): one module for each table or figure."""
