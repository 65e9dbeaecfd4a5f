"""A DICOM node between modalities or an archive and the service: nothing lost, nothing twice.

    receive    C-STORE or STOW-RS: an instance is acknowledged once it is durable
    score      each frontal chest radiograph is sent to the service on arrival
    deliver    the report goes to the archives, and an archive's own answer confirms it

The durable table (`database`, `schema`) is the only queue between the three.
"""
