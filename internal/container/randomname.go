package container

import "math/rand/v2"

// randomName makes a name for a container that the user gave none.
func randomName() string {
	return adjectives[rand.IntN(len(adjectives))] + "_" + surnames[rand.IntN(len(surnames))]
}

var adjectives = [...]string{
	"able", "agile", "airy", "alert", "amber", "ample", "apt", "ardent", "balmy", "blithe", "bold", "bonny", "brave", "breezy", "bright",
	"brisk", "calm", "candid", "cheery", "chirpy", "civil", "clear", "clever", "cosy", "crisp", "curious", "dapper", "daring", "deft", "eager",
	"earnest", "easy", "elated", "even", "exact", "fair", "fearless", "fleet", "fluent", "fond", "frank", "fresh", "gallant", "gentle", "giddy",
	"glad", "gleaming", "golden", "graceful", "grand", "hale", "handy", "happy", "hardy", "hearty", "honest", "humble", "ideal", "jaunty", "jolly",
	"jovial", "keen", "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mighty", "mild", "modest", "neat", "nimble", "noble",
	"patient", "peppy", "placid", "plucky", "polite", "prompt", "proud", "quick", "quiet", "ready", "robust", "rosy", "sage", "serene", "sharp",
	"sleek", "smart", "snug", "sober", "solid", "sound", "spry", "steady", "stoic", "sturdy", "sunny", "swift", "tidy", "trim", "true",
	"upbeat", "valiant", "vivid", "warm", "wise", "witty", "zesty",
}

var surnames = [...]string{
	"abel", "ampere", "anning", "apgar", "archimedes", "avogadro", "babbage", "banach", "banneker", "bernoulli", "bohr", "boole", "bose", "boyle", "brahe",
	"burnell", "cantor", "carson", "cauchy", "cavendish", "celsius", "copernicus", "coulomb", "curie", "dalton", "darwin", "davy", "descartes", "dijkstra", "dirac",
	"edison", "einstein", "erdos", "euclid", "euler", "faraday", "fermat", "fermi", "feynman", "fibonacci", "fleming", "fourier", "franklin", "galilei", "galois",
	"gauss", "germain", "goedel", "goodall", "hahn", "hamilton", "heisenberg", "henry", "herschel", "hertz", "hilbert", "hooke", "hopper", "hubble", "huygens",
	"hypatia", "jacobi", "joule", "kelvin", "kepler", "khayyam", "knuth", "kovalevskaya", "lagrange", "laplace", "lavoisier", "leavitt", "leibniz", "linnaeus", "lovelace",
	"mach", "maxwell", "mcclintock", "meitner", "mendel", "mendeleev", "mirzakhani", "morse", "napier", "newton", "nightingale", "noether", "oersted", "ohm", "pascal",
	"pasteur", "pauling", "payne", "planck", "poincare", "ptolemy", "pythagoras", "raman", "ramanujan", "riemann", "ritchie", "roentgen", "rutherford", "sagan", "salam",
	"shannon", "snell", "somerville", "tesla", "thales", "thompson", "torricelli", "turing", "volta", "watt", "wiles", "wu", "yalow", "yonath", "zuse",
}
