// What xpath found on this slide, in QuPath 0.4 or newer. Research use only.
//
// Open the slide, then Automate > Script editor, open this file, Run; choose objects.geojson beside it.
// Without a window: QuPath script -i SLIDE --args FOLDER open_in_qupath.groovy
// Running it again replaces what it brought before (same ids) and leaves everything else alone.

import java.util.concurrent.CompletableFuture
import javafx.application.Platform
import javafx.stage.FileChooser
import qupath.lib.color.ColorMaps
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.commands.Commands
import qupath.lib.gui.tools.MeasurementMapper
import qupath.lib.io.PathIO

def fileName = @FILE@
def measurement = @MEASUREMENT@  // what colours the objects at first; '' for their classes
def signed = @SIGNED@            // zero in the middle: blue speaks against the class, red for it

def imageData = getCurrentImageData()
if (imageData == null) {
    println 'No slide is open: open it first.'
    return
}

def gui = QuPathGUI.getInstance()
def file = binding.hasVariable('args') && args ? new File(args[0], fileName) : null
if (file == null && gui != null) {
    def chosen = new CompletableFuture<File>()
    Platform.runLater {
        def chooser = new FileChooser()
        chooser.setTitle('Where is ' + fileName + '?')
        chooser.setInitialFileName(fileName)
        chosen.complete(chooser.showOpenDialog(gui.getStage()))
    }
    file = chosen.get()
}
if (file == null || !file.isFile()) {
    println 'Nothing was imported: no file ' + (file ?: fileName)
    return
}

def hierarchy = imageData.getHierarchy()
def found = PathIO.readObjects(file)
def ids = found.collect { it.getID() } as Set
hierarchy.removeObjects(hierarchy.getAllObjects(false).findAll { it.getID() in ids }, true)
hierarchy.addObjects(found)
println 'Imported ' + found.size() + ' objects from ' + file.getName()

def shown = found.findAll { it.isDetection() }
def values = shown.collect { it.getMeasurementList().get(measurement) }.findAll { Double.isFinite(it) }
if (gui == null || measurement.isEmpty() || values.isEmpty())
    return

def mapper = new MeasurementMapper(ColorMaps.getColorMaps().get('Viridis'), measurement, shown)
if (signed) {
    def sizes = values.collect { Math.abs(it) }.sort()
    def limit = Math.max(sizes[(int) (0.99 * (sizes.size() - 1))], 1e-12)
    def red = @RED@ as double[]
    def green = @GREEN@ as double[]
    def blue = @BLUE@ as double[]
    mapper.setColorMapper(ColorMaps.createColorMap('xpath signed', red, green, blue))
    mapper.setDisplayMinValue(-limit)  // as far below zero as above, so that pale is zero
    mapper.setDisplayMaxValue(limit)
    println measurement + ': pale is 0, full colour is ' + limit + ' or more either way'
}
Platform.runLater {
    def options = gui.getViewer().getOverlayOptions()
    options.setFillDetections(true)
    options.setMeasurementMapper(mapper)
    Commands.createMeasurementMapDialog(gui).show()
}
