package sys

const sysMemfdCreate = 279

// SeccompCall is the number of seccomp(2).
const SeccompCall = 277

const sysRenameat2 = 276
