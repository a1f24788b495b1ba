"""The queues between the service and its workers, and the process that carries out one job after the other."""
