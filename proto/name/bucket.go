package name

// Buckets is the number of parts that presence is divided into.
const Buckets = 256

// Bucket returns the bucket of presence, 0 to Buckets-1, in which a tenant's uid, session key or room lies:
// FNV-1a (32 bits) of tenant, a NUL byte and name, modulo Buckets. Router and comet must agree on it: comet
// is asked to write one bucket again, and has to know what lies there.
func Bucket(tenant, name string) uint32 {
	const offset, prime = 2166136261, 16777619
	h := uint32(offset)
	for i := range len(tenant) {
		h = (h ^ uint32(tenant[i])) * prime
	}
	h *= prime // the NUL byte
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * prime
	}
	return h % Buckets
}
