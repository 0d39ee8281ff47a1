module.exports = { markers: 1 };
