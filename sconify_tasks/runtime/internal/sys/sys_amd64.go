package sys

const sysMemfdCreate = 319

// SeccompCall is the number of seccomp(2).
const SeccompCall = 317

const sysRenameat2 = 316
