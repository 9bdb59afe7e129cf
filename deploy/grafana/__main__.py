from deploy.grafana.boards import write

write()
