"""Corrections: what people made of predictions, pulled out of Label Studio into the ledger, told and handed on."""
