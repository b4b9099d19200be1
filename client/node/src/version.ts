/** The version of this package. Releases of all clients and of the broker have the same. */
export const VERSION = "0.1.0";
