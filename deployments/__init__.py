"""How a studio runs the flows: deployments, work pools, images, units and automations."""
