//! The L4/L7 gateway: listeners, route table, filters, balance, upstream pools.
